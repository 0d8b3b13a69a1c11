"""Does a run that is killed at any moment and resumed equal the uninterrupted one, bit for bit?"""
