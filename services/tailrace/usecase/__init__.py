"""THE DECLARATION and its compiler: sources, features, labels, policies, plan."""
