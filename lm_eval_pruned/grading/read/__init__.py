"""Parser: turn an answer in normal form into an expression tree, or refuse it as a whole."""
