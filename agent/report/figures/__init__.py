"""Pictures of a campaign: each module computes its numbers from records and draws them into a Figure."""
