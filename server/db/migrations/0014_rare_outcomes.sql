-- What did not arrive is rare and looked for: found without walking all that did. Codes 0 and 1 are delivered and sent
-- (server/types.ts).
create index attempts_rare on attempts (tenant_id, outcome, notification_id) where final and outcome > 1;
create index delivery_state_rare on delivery_state (tenant_id, outcome, notification_id) where outcome > 1;
