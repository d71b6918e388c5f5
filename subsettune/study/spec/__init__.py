"""What a study file says: the task, the space of policies, and the settings of the study."""
