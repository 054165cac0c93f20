"""Ray: started or joined, and work spread over it."""
