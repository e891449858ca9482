-- What limits took for abuse (limits.reason spam or throttled): one row for each counter and window that was full.
create table spam_detections (
  tenant_id   int not null references tenants,
  id          uuid not null,
  key         text not null,                           -- of the counter
  window_at   timestamptz not null,
  user_id     text,                                    -- null: a bare address
  channel     smallint not null,                       -- of the first one that was stopped
  event_type  text not null,
  rule        text not null,                           -- the limit's name and bound, as they were
  action      text not null check (action in ('THROTTLE', 'BLOCK')),
  max         bigint not null,
  stopped     bigint not null,                         -- beyond max
  detected_at timestamptz not null default now(),
  last_at     timestamptz not null default now(),
  resolved_at timestamptz,
  notes       text check (length(notes) <= 2000),
  primary key (tenant_id, id)
);
create unique index spam_detections_counter on spam_detections (tenant_id, key, window_at);
create index spam_detections_user on spam_detections (tenant_id, user_id, id);
create index spam_detections_last on spam_detections using brin (last_at);
