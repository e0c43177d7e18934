"""From a model to a graph and its sites: capture, chains of Linears, the rows that reach them, and the graph as text."""
