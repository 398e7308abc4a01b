"""A seeded fault simulator: the real programs on one virtual loop, network and disks that fail on order.

schedule (data) → world: actors on `loop`, over `network`, on `disk` → `oracle` after every step → outcome.
"""
