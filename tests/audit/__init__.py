"""An empirical audit of the privacy claim: how well can the best adversary guess whether a device was in?

A canary, a device that sends the most it is allowed to, is in a release or replaced by zero, by a fair coin.
The adversary knows everything else and guesses the coin from what the release publishes. From how often it is
right follows a lower bound on epsilon; above the claim, the program does not do what it says. As important
is that the audit can see: bugs are planted into the real code, and each must be found.
"""
