-- The inbox item that tells a person how something stands; the next event about the same thing takes its place.
create table alert_messages (
  tenant_id        int not null,
  key              text not null check (length(key) <= 300),
  user_id          text not null,
  notification_id  uuid not null,
  priority         int2 not null,
  at               timestamptz not null,
  primary key (tenant_id, key, user_id)
) with (fillfactor = 70);
create index alert_messages_at on alert_messages using brin (at);
