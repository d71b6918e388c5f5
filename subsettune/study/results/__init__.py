"""What a study leaves on disk, and how it is read: records, view, summary, folder."""
