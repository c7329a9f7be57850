"""The LLM side: a study's history and a desk go in, a proposal comes out of one bounded conversation."""
