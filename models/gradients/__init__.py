"""From a forward graph to one graph that trains: the gradient by vector-Jacobian products, in standard operators.

Reverse accumulation as in Griewank and Walther 2008, Evaluating Derivatives, chapter 3. A device needs nothing
of this: it runs the graphs that come out.
"""
