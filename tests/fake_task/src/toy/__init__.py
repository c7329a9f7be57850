"""A toy program for the lab's tests: two views of hidden vectors go in, embeddings of both come out."""
