"""Submission by HTTP (`submitHttp`): a front to the SMTP session, which has all the rules."""
