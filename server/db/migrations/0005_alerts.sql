-- What operators keep quiet, which alerts cover others, and which alerts fire.

-- matchers: [{name, op, value}], as in server/alerts/matcher.ts. Whether one is pending, active or expired follows
-- from its times; rows stay, so that it can be told who kept what quiet.
create table silences (
  tenant_id   int not null,
  id          uuid not null,
  matchers    jsonb not null,
  author      text not null check (length(author) between 1 and 255),
  comment     text not null check (length(comment) between 1 and 2000),
  starts_at   timestamptz not null,
  ends_at     timestamptz not null,
  created_at  timestamptz not null,
  updated_at  timestamptz not null,
  primary key (tenant_id, id),
  check (ends_at >= starts_at)
);
create index silences_ends on silences (tenant_id, ends_at);

create table inhibitions (
  tenant_id        int not null,
  id               uuid not null,
  name             text not null check (length(name) between 1 and 255),
  source_matchers  jsonb not null,
  target_matchers  jsonb not null,
  equal            text[] not null default '{}',
  enabled          boolean not null default true,
  created_at       timestamptz not null,
  updated_at       timestamptz not null,
  primary key (tenant_id, id)
);
create unique index inhibitions_name on inhibitions (tenant_id, name);

-- One row an alert, written with the plan of the event that says how it is. labels holds what matchers may ask for
-- later: 'type', 'source', 'subject', 'severity' and 'labels.<name>', each as text.
create table alert_states (
  tenant_id   int not null,
  key         text not null check (length(key) <= 300),
  rule_id     uuid,                                  -- whose key it is; null: the sender's own fingerprint
  status      text not null check (status in ('firing', 'resolved')),
  labels      jsonb not null,
  event_id    uuid not null,                         -- which told this status
  at          timestamptz not null,                  -- when it became so, at the producer: the latest counts
  started_at  timestamptz not null,
  ends_at     timestamptz,                           -- firing no longer than this, heard of or not
  updated_at  timestamptz not null,
  primary key (tenant_id, key)
) with (fillfactor = 70);
create index alert_states_firing on alert_states using gin (labels jsonb_path_ops) where status = 'firing';
create index alert_states_over on alert_states (updated_at) where status = 'resolved';

create trigger changes_insert after insert on silences
  referencing new table as new_rows for each statement execute function note_change('silence', 'id');
create trigger changes_update after update on silences
  referencing new table as new_rows for each statement execute function note_change('silence', 'id');
create trigger changes_delete after delete on silences
  referencing old table as old_rows for each statement execute function note_change('silence', 'id');
create trigger changes_insert after insert on inhibitions
  referencing new table as new_rows for each statement execute function note_change('inhibition', 'id');
create trigger changes_update after update on inhibitions
  referencing new table as new_rows for each statement execute function note_change('inhibition', 'id');
create trigger changes_delete after delete on inhibitions
  referencing old table as old_rows for each statement execute function note_change('inhibition', 'id');
