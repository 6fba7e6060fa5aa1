"""The one door to the model library: providers, prices and token bounds.

`calls.py` uses it. Invariant: importing any of it loads neither the library nor its price table.
"""
