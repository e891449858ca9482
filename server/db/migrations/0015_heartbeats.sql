-- Sources that must be heard of.

create table heartbeats (
  tenant_id      int not null references tenants,
  -- Plain letters: it stands in paths, and in the script of the accepting commit.
  name           text collate "C" not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  description    text not null default '' check (length(description) <= 1000),
  every_seconds  int not null check (every_seconds between 1 and 31622400),
  grace_seconds  int not null check (grace_seconds between 0 and 31622400),
  event_types    text[] not null default '{}',       -- accepted events that count as a beat; empty: none does
  event_source   text,                               -- only those of this source
  event_subject  text,                               -- only those about this subject
  priority       int2,                               -- of the events that tell of it
  paused         boolean not null default false,
  created_at     timestamptz not null,
  updated_at     timestamptz not null,
  primary key (tenant_id, name)
);
create trigger changes_insert after insert on heartbeats referencing new table as new_rows for each statement execute function note_change('heartbeat', 'name');
create trigger changes_update after update on heartbeats referencing new table as new_rows for each statement execute function note_change('heartbeat', 'name');
create trigger changes_delete after delete on heartbeats referencing old table as old_rows for each statement execute function note_change('heartbeat', 'name');

-- A beat changes no indexed column, so that it stays a heap-only update; only one that ends a silence does.
create table heartbeat_states (
  tenant_id     int not null,
  name          text collate "C" not null,
  since         timestamptz not null,                -- waited for from here: made, changed, resumed
  last_beat_at  timestamptz,
  deaf_ms       bigint not null,                     -- heartbeat_deaf_ms at the later of the two
  missed_at     timestamptz,                         -- null: it is heard of, as far as we know
  check_at      timestamptz,                         -- null: nothing to find out before the next beat
  primary key (tenant_id, name),
  foreign key (tenant_id, name) references heartbeats on delete cascade
) with (fillfactor = 50);
create index heartbeat_states_due on heartbeat_states (check_at) where check_at is not null;

-- Until when anybody listened. While no process takes events, silence is ours and not the sources': that time is
-- added up and counts for nobody.
create table heartbeat_listening (
  one          boolean primary key default true check (one),
  heard_until  timestamptz not null default now(),
  deaf_ms      bigint not null default 0
) with (fillfactor = 50);
insert into heartbeat_listening default values;

-- How long nobody has listened in all, as of an instant. Listeners report every 2 seconds (server/heartbeats/watcher.ts).
create function heartbeat_deaf_ms(at timestamptz) returns bigint language sql stable parallel safe as $$
  select deaf_ms + case when at - heard_until > interval '6 seconds'
    then (extract(epoch from at - heard_until) * 1000)::bigint else 0 end
  from heartbeat_listening
$$;
