"""Memory: the report, the tracker (a simulated GPU when it has a capacity), and the Lightning callback."""
