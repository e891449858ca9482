import { Menu as Base } from '@base-ui/react/menu'
import { type LucideIcon } from 'lucide-react'
import type { ReactElement, ReactNode } from 'react'

export interface MenuEntry {
  label: string
  icon?: LucideIcon
  /** On the right, in small letters. */
  hint?: string
  disabled?: boolean
  danger?: boolean
  run(): void
}

export interface MenuGroup {
  label?: string
  entries: readonly MenuEntry[]
}

/** A button that opens a list of things to do: arrows move, letters jump, Escape closes. */
export function Menu({
  trigger,
  groups,
  empty,
}: {
  trigger: ReactElement
  groups: readonly MenuGroup[]
  empty?: ReactNode
}) {
  const shown = groups.filter(group => group.entries.length > 0)
  return (
    <Base.Root>
      <Base.Trigger render={trigger} />
      <Base.Portal>
        <Base.Positioner sideOffset={4} align="start" className="z-50">
          <Base.Popup className="max-h-[min(24rem,80dvh)] max-w-[22rem] min-w-48 overflow-y-auto rounded-lg border border-line bg-raised p-1 shadow-high outline-none">
            {shown.length === 0 && <div className="px-3 py-2 text-sm text-muted">{empty}</div>}
            {shown.map((group, at) => (
              <Base.Group key={group.label ?? at} className={at > 0 ? 'mt-1 border-t border-line pt-1' : ''}>
                {group.label !== undefined && (
                  <Base.GroupLabel className="px-2.5 pt-1.5 pb-1 panel-title">{group.label}</Base.GroupLabel>
                )}
                {group.entries.map(({ label, icon: Icon, hint, disabled, danger, run }) => (
                  <Base.Item
                    key={label}
                    disabled={disabled}
                    onClick={run}
                    className={`flex cursor-pointer items-center gap-2.5 rounded-md px-2.5 py-1.5 text-sm outline-none select-none data-disabled:cursor-default data-disabled:opacity-50 data-highlighted:bg-accent-soft data-highlighted:text-accent-ink ${danger ? 'text-bad' : ''}`}
                  >
                    {Icon && <Icon aria-hidden className="size-4 shrink-0" />}
                    <span className="grow">{label}</span>
                    {hint !== undefined && <span className="font-mono text-xs text-muted">{hint}</span>}
                  </Base.Item>
                ))}
              </Base.Group>
            ))}
          </Base.Popup>
        </Base.Positioner>
      </Base.Portal>
    </Base.Root>
  )
}
