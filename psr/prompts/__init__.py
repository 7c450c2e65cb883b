"""What the policy, the judge and the process reward model are asked, as texts and as token ids."""
