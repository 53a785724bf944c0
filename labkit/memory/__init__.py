"""Memory: the report, the tracker (a virtual GPU when it has a capacity), and the Lightning callback."""
