"""`python -m lediflow.edit interpolate|vary|inpaint|anonymise|anonymity|attribute`: edit photographs.

command      the first word, which chooses the task
interpolate  frames between two photographs, or two seeds
vary         other versions of a photograph
inpaint      new pixels inside a mask
anonymise    other faces on a folder of photographs
anonymity    how well these hide the persons
attribute    more and less of an attribute

A task reads its options, calls lediflow/editing and writes the output folder. Each has a `run`, and is imported when it
is chosen.
"""

from lediflow.edit.command import as_option, main

__all__ = ["as_option", "main"]
