"""What a policy would have earned, from what others logged: one estimator a file.

Each is given as terms whose mean is the estimate, so that sums over users, and with them errors and
cluster-bootstrap intervals, come for free. Arrays are (n,) rows, or (n, S) slates of S positions
whose terms are summed over the slate.
"""
