-- Limits that operators set. What they count is in counters and claims, under 'limit:<id>:…'.
create table limits (
  tenant_id       int not null references tenants,
  id              uuid not null,
  name            text not null check (length(name) between 1 and 255),
  scope           text not null check (scope in ('tenant', 'channel', 'category', 'rule', 'user', 'address')),
  channels        text[] not null default '{}',      -- empty: every outside channel
  categories      text[] not null default '{}',      -- empty: every category
  max             int not null check (max >= 0),     -- 0: none at all
  window_kind     text not null check (window_kind in ('minute', 'hour', 'day', 'week', 'month', 'gap')),
  gap_seconds     int check (gap_seconds between 1 and 2678400),
  per             text not null check (per in ('delivery', 'notification')),
  overflow        text not null check (overflow in ('hold', 'skip', 'digest')),
  critical_passes boolean not null default true,
  shares          jsonb not null default '{}',       -- of max, by priority: what less urgent ones may use up
  enabled         boolean not null default true,
  revision        int not null default 1,
  created_at      timestamptz not null default now(),
  updated_at      timestamptz not null default now(),
  primary key (tenant_id, id),
  check ((window_kind = 'gap') = (gap_seconds is not null))
);
create unique index limits_name on limits (tenant_id, name);

create trigger changes_insert after insert on limits referencing new table as new_rows for each statement execute function note_change('limit', 'id');
create trigger changes_update after update on limits referencing new table as new_rows for each statement execute function note_change('limit', 'id');
create trigger changes_delete after delete on limits referencing old table as old_rows for each statement execute function note_change('limit', 'id');
