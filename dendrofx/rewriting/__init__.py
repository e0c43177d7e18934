"""From a graph to a rewritten module: routed sites, live rows, cascades. Each is a list of passes."""
