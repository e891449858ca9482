-- When a group was last told about: its next message waits from there (server/ledger/collect.ts).
create index digests_told on digests (tenant_id, recipient_id, channel, key, closed_at desc) where state in ('closed', 'released');
