"""The contract of a completion port, clause by clause.

Each test is named after the clause that it proves (``test_o6_…`` for O6) and
runs on every backend and, unless the clause is about `get` itself, with every
driver.  ``docs`` has the text of the clauses.
"""
