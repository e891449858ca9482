-- What waits for somebody not to react: found by the notification they would react to.
create index jobs_escalation on jobs (tenant_id, (state ->> 'of')) where kind = 'escalation';
