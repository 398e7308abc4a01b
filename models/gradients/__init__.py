"""From a forward graph to one that trains: gradients by vector-Jacobian products, in standard operators.

Reverse accumulation as in Griewank and Walther 2008, Evaluating Derivatives, chapter 3. A device needs none
of this: it runs the graphs that come out.
"""
