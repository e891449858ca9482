-- Pictures for messages. What was sent once keeps its address: a file never changes, an asset moves on to another file.
create table asset_blobs (                           -- the bytes, each once for a tenant
  tenant_id    int not null references tenants,
  hash         bytea not null check (length(hash) = 32),           -- SHA-256
  bytes        int not null check (bytes > 0),
  data         bytea,                                -- null: in the object store, under tenant and hash
  unused_since timestamptz,                          -- no file has it any more: forgotten by the keeper
  primary key (tenant_id, hash)
);
-- A picture is compressed already.
alter table asset_blobs alter column data set storage external;
create index asset_blobs_unused on asset_blobs (unused_since) where unused_since is not null;

create table assets (
  tenant_id    int not null references tenants,
  name         text not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  public       boolean not null,
  public_id    text not null,                        -- of its file as of now
  created_at   timestamptz not null,
  updated_at   timestamptz not null,
  primary key (tenant_id, name)
);

create table asset_files (
  tenant_id    int not null,
  public_id    text not null check (length(public_id) = 22),
  name         text not null,
  hash         bytea not null,
  content_type text not null check (content_type in ('image/png', 'image/jpeg', 'image/gif', 'image/webp')),
  width        int not null check (width > 0),
  height       int not null check (height > 0),
  created_by   text,
  created_at   timestamptz not null,
  primary key (tenant_id, public_id),
  foreign key (tenant_id, hash) references asset_blobs,
  foreign key (tenant_id, name) references assets on delete cascade
);
create index asset_files_of on asset_files (tenant_id, name, created_at);
create index asset_files_blob on asset_files (tenant_id, hash);
alter table assets add foreign key (tenant_id, public_id) references asset_files deferrable initially deferred;

create trigger changes_insert after insert on assets referencing new table as new_rows for each statement execute function note_change('asset', 'name');
create trigger changes_update after update on assets referencing new table as new_rows for each statement execute function note_change('asset', 'name');
create trigger changes_delete after delete on assets referencing old table as old_rows for each statement execute function note_change('asset', 'name');
