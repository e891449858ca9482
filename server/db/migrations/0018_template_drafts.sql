-- A revision may be kept before it is used: `revision` is the published one, 0 while none is, and `last_revision` the
-- highest number given out. Revisions above `revision` are drafts.
alter table templates add column last_revision int not null default 1;
update templates set last_revision = revision;
alter table templates add constraint published_exists check (revision between 0 and last_revision);

-- ICU messages by language and key, for the helper t.
alter table template_revisions add column messages jsonb not null default '{}' check (jsonb_typeof(messages) = 'object');
