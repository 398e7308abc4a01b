"""A device's own data: where it is (`source`), and how it becomes examples (`load`)."""
