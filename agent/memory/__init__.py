"""What an agent remembers: steps that worked, and how they are found again.

Begin with `steps` (what a step is, and which are worth keeping) and `ranking` (what is asked, `Query`, of whom,
`Retriever`, and in what order the answers come). Two answer it: `snapshot.Memory`, frozen, a part of one candidate
and gated with it; and `library.Library`, everything that ever worked, which proposers look at through a `LibraryView`
without the gate's cases. `store`, `word_index` and `vector_index` are what a library is made of; `delexicalization`
and `similarity` say how alike actions and texts are.
"""
