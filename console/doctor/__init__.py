"""`fedfleet doctor`: examines what a program of a fleet would run with, and says what to do about it.

`findings` says what an answer is, `examination` what a check may look at, `tables` which checks there are; a
new check is a function in the module of its subject and a line in that table.
"""
