"""English words that tie others together and draw nothing themselves, in the normal form.

No score is asked for them: a text encoder has them near whatever is made of them, such as "land" and "bow and arrow".
"""

_CONJUNCTIONS = """
and but nor yet while when whenever where wherever whereas because although though unless until till since whether
"""
_PREPOSITIONS = """
about above across after against along alongside amid amidst among amongst around atop before behind below beneath
beside besides between beyond down during except for from inside into like near off onto opposite out outside over past
per than through throughout toward towards under underneath unlike upon via with within without
"""
_DETERMINERS = """
the this that these those some any each every either neither both all many few several much more most less another other
such same one two three four five six seven eight nine ten eleven twelve
"""
_PRONOUNS = """
you she her hers him his its they them their theirs our ours your yours who whom whose which what
"""
_VERBS_AND_ADVERBS = """
are was were been being has have had does did not very too also just only even still quite rather almost there here then
"""

FUNCTION_WORDS = frozenset(f"{_CONJUNCTIONS}{_PREPOSITIONS}{_DETERMINERS}{_PRONOUNS}{_VERBS_AND_ADVERBS}".split())
