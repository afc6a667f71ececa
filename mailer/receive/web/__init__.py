"""Submission by HTTP (`submitHttp`): a front end to the SMTP session, which applies all rules."""
