"""Parts of the benchmark `rank`: what is trained, and what rankings are worth."""
