"""Profile: the algebra of attributes. Records fold into fragments, fragments merge, values are read from them.

Pure functions of their arguments. Knows nothing of topics, tables, clocks, subjects or who may see what.
"""
