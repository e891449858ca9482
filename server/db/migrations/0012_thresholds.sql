-- Streams of numbers that are held against bounds.

create table thresholds (
  tenant_id    int not null references tenants,
  id           uuid not null,
  name         text not null check (length(name) between 1 and 255),
  description  text not null default '' check (length(description) <= 1000),
  stream       text not null check (length(stream) between 1 and 255),
  spec         jsonb not null,                       -- server/streams/threshold.ts
  priority     int2,                                 -- of the events it tells by
  enabled      boolean not null default true,
  revision     int not null default 1,
  created_at   timestamptz not null,
  updated_at   timestamptz not null,
  primary key (tenant_id, id)
);
create unique index thresholds_name on thresholds (tenant_id, name);
create index thresholds_stream on thresholds (tenant_id, stream, id) where enabled;

-- How each series of a stream stands. No values: they are known from the events that tell of them.
create table threshold_states (
  tenant_id     int not null,
  threshold_id  uuid not null,
  series        text collate "C" not null check (length(series) <= 255),
  revision      int not null default 0,              -- of the threshold that says so; of another one it counts for nothing
  status        text not null default 'clear' check (status in ('clear', 'pending', 'crossed')),
  since         timestamptz,
  last_at       timestamptz,
  crossed_at    timestamptz,
  primary key (tenant_id, threshold_id, series),
  foreign key (tenant_id, threshold_id) references thresholds on delete cascade
) with (fillfactor = 70);
