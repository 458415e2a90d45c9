"""Human studies: tasks to put before people, and what their answers say."""
