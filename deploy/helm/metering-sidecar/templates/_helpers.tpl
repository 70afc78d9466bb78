{{/* 52: a StatefulSet's pods bear a label of its name and a hash, of 63 characters at most. */}}
{{- define "sidecar.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- default $name .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "sidecar.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the gateways alone: the pod of `kafka init` must get no traffic. */}}
{{- define "sidecar.gateways" -}}
{{ include "sidecar.selector" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "sidecar.labels" -}}
{{ include "sidecar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "sidecar.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The port of an address as sidecar.yaml has it, so that no port is said twice. */}}
{{- define "sidecar.port" -}}
{{ splitList ":" . | last | int }}
{{- end -}}

{{- define "sidecar.keysInRedis" -}}
{{ dig "keys" "redis" false .Values.config | ternary "true" "" }}
{{- end -}}

{{/* sidecar.yaml: the operator's settings, and the paths of what the chart mounts. */}}
{{- define "sidecar.settings" -}}
{{- $paths := dict "policies" "/etc/sidecar-policies" "journal" (dict "dir" "/var/lib/sidecar/journal") -}}
{{- if not (include "sidecar.keysInRedis" .) -}}
{{- $_ := set $paths "keys" (dict "file" "/etc/sidecar-keys/keys.yaml") -}}
{{- end -}}
{{ mergeOverwrite (deepCopy .Values.config) $paths | toYaml }}
{{- end -}}

{{/*
The bound of a stop: before SIGTERM the pause of preStop; then workers and after them the shipper each have
drain_seconds and 5 more before they are killed. 5 beyond, so that the kubelet is never the one who kills.
*/}}
{{- define "sidecar.grace" -}}
{{ add 5 (mul 2 (add (int .Values.config.drain_seconds) 5)) 5 }}
{{- end -}}

{{- define "sidecar.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "sidecar.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true # all that is written goes to the volume
capabilities: { drop: [ALL] }
{{- end -}}

{{/* What cannot work is refused before anything is installed. */}}
{{- define "sidecar.refuse" -}}
{{- if and .Values.secret.existing .Values.secret.values -}}
{{- fail "secret: is one of two: keep secret.existing, or secret.values" -}}
{{- end -}}
{{- $redis := or (dig "redis" "url" "" .Values.config) .Values.secret.existing .Values.secret.values.SIDECAR_REDIS__URL -}}
{{- if and (gt (int .Values.replicas) 1) (not $redis) -}}
{{- fail (printf "replicas: %d gateways have in-memory counters that they cannot share: set config.redis.url (with a password: secret.values.SIDECAR_REDIS__URL), or replicas: 1" (int .Values.replicas)) -}}
{{- end -}}
{{- if and .Values.kafkaInit.enabled (not (dig "kafka" "bootstrap_servers" "" .Values.config)) -}}
{{- fail "kafkaInit.enabled: needs config.kafka.bootstrap_servers" -}}
{{- end -}}
{{- end -}}
