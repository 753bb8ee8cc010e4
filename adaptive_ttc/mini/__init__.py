"""The embedded default: MiniMath, a tiny policy, its PRM and a larger reference policy, and their training."""
