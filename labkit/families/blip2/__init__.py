"""BLIP-2: a vision tower, a Q-Former, and OPT or T5."""
