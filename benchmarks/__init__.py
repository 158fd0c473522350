"""c360 side by side with what a user would pick instead: one workload, its oracle, and the contestants."""
