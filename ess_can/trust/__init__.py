"""What is trusted: keys, signatures, compatibility and anti-rollback."""
