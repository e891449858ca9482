-- Of a group that has been told about: the notifications in it whose alerts still fired then. They are told again after
-- the group's repeat interval; none means that the group is over, and its next alert begins a new one. Null: no alerts.
alter table digests add column told uuid[];
-- Whether an event is still the last word about its alert.
create index alert_states_event on alert_states (tenant_id, event_id);
-- From now on every alert that fires has an end (server/alerts/alert.ts).
update alert_states set ends_at = updated_at + interval '30 days' where status = 'firing' and ends_at is null;
