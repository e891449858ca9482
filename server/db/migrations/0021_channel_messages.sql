-- The message at a vendor that tells how something stands; the next word about the same thing takes its place there.
create table channel_messages (
  tenant_id        int not null,
  key              text not null check (length(key) <= 300),
  recipient_id     text not null,
  provider         text not null,
  message_id       text not null,                    -- the provider's
  notification_id  uuid not null,
  at               timestamptz not null,
  primary key (tenant_id, key, recipient_id, provider)
) with (fillfactor = 70);
create index channel_messages_at on channel_messages using brin (at);
