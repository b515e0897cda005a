"""The world faked, and an independent meter to compare the real one with.

What is here ships with the package, so that anybody can check an installation
against it. `model` is the meter: slow, in plain Python, and obviously right.
"""
