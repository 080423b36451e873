"""qatoolkit: which data makes a language model better at what it is bad at?"""

__version__ = "0.1.0"
