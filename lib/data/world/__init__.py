"""The offline marketplace: one generator, one seed, raw files as published, and the truth apart.

``config`` its size and laws · ``words`` the vocabulary · ``catalogue`` items · ``titles`` what a
shop prints · ``people`` users and their hours · ``choice`` the law of the next item ·
``events`` its draws · ``clicks`` the law of a click · ``write_*`` raw formats · ``truth`` opens
what only evaluation may open · ``simulate`` all of it in order.
"""
