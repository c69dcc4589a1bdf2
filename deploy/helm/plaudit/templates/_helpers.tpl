{{- define "plaudit.image" -}}
{{ .root.Values.image.registry }}plaudit-{{ .part }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "plaudit.labels" -}}
app.kubernetes.io/name: plaudit
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What pods are selected by: never changed by an upgrade. */}}
{{- define "plaudit.selector" -}}
app.kubernetes.io/name: plaudit
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "plaudit.serviceUrl" -}}
{{ if .Values.redis.enabled }}redis://service:$(REDIS_PASSWORD)@{{ .Release.Name }}-redis:6379/0{{ else }}{{ required "redis.serviceUrl: the URL of your Redis for the API and the scorers, because redis.enabled is false" .Values.redis.serviceUrl }}{{ end }}
{{- end }}

{{- define "plaudit.executorUrl" -}}
{{ if .Values.redis.enabled }}redis://executor:$(REDIS_PASSWORD)@{{ .Release.Name }}-redis:6379/0{{ else }}{{ required "redis.executorUrl: the URL of your Redis for the executors, because redis.enabled is false" .Values.redis.executorUrl }}{{ end }}
{{- end }}

{{/* A tenant's key is put together from the secret's entries; names without PLAUDIT_, or they would be settings. */}}
{{- define "plaudit.tenantEnv" -}}
{{- $keys := list }}
{{- range $i, $tenant := .Values.tenants }}
- name: TENANT_{{ $i }}_KEY
  valueFrom: {secretKeyRef: {name: {{ $.Values.secret }}, key: {{ $tenant.key }}}}
{{- $keys = append $keys (printf "$(TENANT_%d_KEY)" $i) }}
{{- end }}
- name: PLAUDIT_API_KEY
  value: {{ join "," $keys | quote }}
{{- end }}

{{- define "plaudit.settings" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* What all pods have: no token, no variables of other services, their place. */}}
{{- define "plaudit.pod" -}}
automountServiceAccountToken: false
# Kubernetes would put PLAUDIT_API_PORT=tcp://... into the environment, and an unknown setting is an error.
enableServiceLinks: false
terminationGracePeriodSeconds: 40
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .place.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .place.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
